"""What the stages share: sources of questions and chats, passages, overlap, SFT examples."""
