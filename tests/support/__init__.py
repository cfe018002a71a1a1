"""What several test files share: builders, fakes, real parts and programs; no test."""
