-- A file is the only place here: nothing moves.
SELECT 1;
