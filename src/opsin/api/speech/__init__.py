"""What was said, written down: windows of sound, moments and languages, segments, subtitles."""
