// Durations: milliseconds, or "<number> <unit>".

const UNITS = create(null);
assign(UNITS, { ms: 1, millisecond: 1, second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000, week: 604_800_000,
  month: 2_592_000_000, year: 31_557_600_000 });
const YEAR = 365 * 86_400_000;
// No more than the worker takes: it ends a sandbox that sends it anything else.
const DURATION = /^[ \t]*(\d{1,15}(?:\.\d{1,15})?)[ \t]*(?:(ms|millisecond|second|minute|hour|day|week|month|year)s?)?[ \t]*$/;
const execute = uncurry($RegExp.prototype.exec);

/** Milliseconds, or NaN for what is no duration. */
function millis(duration) {
  if (typeof duration === "number") return duration - duration === 0 && duration >= 0 ? duration : NaN;
  if (typeof duration !== "string") return NaN;
  const found = execute(DURATION, [duration]);
  if (found === null) return NaN;
  const value = $Number(found[1]) * UNITS[found[2] ?? "ms"];
  return found[2] === "year" && value > YEAR && $Number(found[1]) * YEAR <= YEAR ? YEAR : value;
}
