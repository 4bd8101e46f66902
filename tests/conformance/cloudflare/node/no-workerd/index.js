exports.default = "/nonexistent/workerd";
exports.compatibilityDate = "2026-01-01";
exports.version = "0.0.0";
