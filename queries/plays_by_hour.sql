-- At which hours of the day (UTC) do people listen?
-- bar: plays
SELECT
    t.hour,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.user_id) AS listeners
FROM songplays AS p
INNER JOIN time AS t ON p.start_time = t.start_time
GROUP BY t.hour
ORDER BY t.hour
