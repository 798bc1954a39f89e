"""Conversations: chat templates, what a model sees of a conversation, and the loop of turns."""
