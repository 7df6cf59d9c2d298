"""borgcubed: one process that owns the store, the queue, the vaults and the workers. It
never imports borg and never touches what a client sends."""
