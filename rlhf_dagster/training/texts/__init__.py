"""From texts and chats to token ids, and what is cut on the way."""
