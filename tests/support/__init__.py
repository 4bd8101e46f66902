"""What the tests stand on: real servers, fresh databases, fakes of nothing."""
