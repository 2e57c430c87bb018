-- How many plays, listeners and sessions has each day?
SELECT
    t.year,
    t.month,
    t.day,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.user_id) AS listeners,
    COUNT(DISTINCT p.session_id) AS sessions
FROM songplays AS p
INNER JOIN time AS t ON p.start_time = t.start_time
GROUP BY t.year, t.month, t.day
ORDER BY t.year, t.month, t.day
