-- What does the lake hold, what share of its plays is paid, and what share found its song in the catalogue?
SELECT
    CAST(MIN(start_time) AS DATE) AS first_day,
    CAST(MAX(start_time) AS DATE) AS last_day,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    CAST(ROUND(100 * CAST(COUNT(CASE WHEN level = 'paid' THEN 1 END) AS DOUBLE) / NULLIF(COUNT(*), 0), 1)
        AS DECIMAL(4, 1)) AS paid_percent,
    CAST(ROUND(100 * CAST(COUNT(song_id) AS DOUBLE) / NULLIF(COUNT(*), 0), 1) AS DECIMAL(4, 1)) AS song_found_percent
FROM songplays
