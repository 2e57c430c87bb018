-- How many plays, listeners and sessions has each day?
-- bar: plays
WITH sessions AS (
    SELECT
        t.year,
        t.month,
        t.day,
        p.user_id,
        p.session_id,
        COUNT(*) AS plays
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY t.year, t.month, t.day, p.user_id, p.session_id
)

SELECT
    year,
    month,
    day,
    SUM(plays) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(*) AS sessions
FROM sessions
GROUP BY year, month, day
ORDER BY year, month, day
