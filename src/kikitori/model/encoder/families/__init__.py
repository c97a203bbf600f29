"""What each encoder family has to say for `SpeechEncoder`: a module for each, with the members of `Family`."""
