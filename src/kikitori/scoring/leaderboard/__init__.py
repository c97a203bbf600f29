"""The Open ASR Leaderboard (English): its result files, its score, what a submission needs."""
