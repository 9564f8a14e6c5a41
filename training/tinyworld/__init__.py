"""Everything that only TinyWorld needs: the making of the embedded model, its judge, its chats."""
