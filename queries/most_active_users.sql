-- Who listens most, in how many sessions and on how many days, and what is their level now?
-- level is the latest one; a play's own level is songplays.level.
-- bar: plays
SELECT
    u.user_id,
    u.first_name,
    u.last_name,
    u.level,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.session_id) AS sessions,
    COUNT(DISTINCT t.year * 10000 + t.month * 100 + t.day) AS days,
    CAST(ROUND(CAST(COUNT(*) AS DOUBLE) / COUNT(DISTINCT p.session_id), 1) AS DECIMAL(18, 1)) AS plays_per_session
FROM songplays AS p
INNER JOIN users AS u ON p.user_id = u.user_id
INNER JOIN time AS t ON p.start_time = t.start_time
GROUP BY u.user_id, u.first_name, u.last_name, u.level
ORDER BY plays DESC, u.user_id
LIMIT 20
