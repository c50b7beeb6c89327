"""Objects, lists and watch frames as the bytes that go out, streamed."""
