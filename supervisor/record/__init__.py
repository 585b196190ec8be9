"""The recovery log: one writer (`store`), plain readers (`queries`), and the lock on the state directory."""
