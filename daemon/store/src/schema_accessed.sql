-- When a node was last read, in seconds and nanoseconds since 1970, where somebody said so.
ALTER TABLE nodes ADD COLUMN accessed INTEGER;
ALTER TABLE nodes ADD COLUMN accessed_ns INTEGER;
