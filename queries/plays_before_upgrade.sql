-- How much do people play before they first upgrade from free to paid?
-- The log's plays show an upgrade at the first paid play after a free one. Who was paid from the first play on, or
-- never upgraded, is not counted.
-- bar: listeners
WITH steps AS (
    SELECT
        user_id,
        level,
        ROW_NUMBER() OVER in_time - 1 AS plays,
        MAX(CASE WHEN level = 'free' THEN 1 END) OVER in_time AS was_free
    FROM songplays
    WINDOW in_time AS (PARTITION BY user_id ORDER BY start_time, session_id, songplay_id)
),

upgrades AS (
    SELECT
        user_id,
        MIN(plays) AS plays
    FROM steps
    WHERE level = 'paid' AND was_free = 1
    GROUP BY user_id
),

classed AS (
    SELECT
        CASE
            WHEN plays < 10 THEN '1 to 9'
            WHEN plays < 25 THEN '10 to 24'
            WHEN plays < 50 THEN '25 to 49'
            WHEN plays < 100 THEN '50 to 99'
            ELSE '100 or more'
        END AS plays_before,
        plays
    FROM upgrades
)

SELECT
    plays_before,
    COUNT(*) AS listeners,
    CAST(ROUND(CAST(SUM(plays) AS DOUBLE) / COUNT(*), 1) AS DECIMAL(18, 1)) AS mean_plays
FROM classed
GROUP BY plays_before
ORDER BY mean_plays
