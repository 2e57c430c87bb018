-- How many plays match no song of the catalogue, day by day?
-- These are the plays that an inner join to songs or artists drops.
-- bar: percent_without_song
WITH days AS (
    SELECT
        t.year,
        t.month,
        t.day,
        COUNT(*) AS plays,
        COUNT(*) - COUNT(p.song_id) AS without_song
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY t.year, t.month, t.day
)

SELECT
    year,
    month,
    day,
    plays,
    without_song,
    CAST(ROUND(100 * CAST(without_song AS DOUBLE) / plays, 1) AS DECIMAL(4, 1)) AS percent_without_song
FROM days
ORDER BY year, month, day
