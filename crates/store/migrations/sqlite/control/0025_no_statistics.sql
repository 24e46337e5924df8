-- Here statistics are made by ANALYZE only, which nobody runs.
SELECT 1;
