-- Who has fallen silent: no play in the last 14 days of the lake, those who played most first?
-- level is the latest one.
-- bar: plays
WITH heard AS (
    SELECT
        user_id,
        COUNT(*) AS plays,
        MAX(start_time) AS last_play
    FROM songplays
    GROUP BY user_id
),

silent AS (
    SELECT
        user_id,
        plays,
        CAST(last_play AS DATE) AS last_day,
        EXTRACT(DAY FROM (SELECT MAX(start_time) FROM songplays) - last_play) AS silent_days
    FROM heard
)

SELECT
    u.user_id,
    u.first_name,
    u.last_name,
    u.level,
    s.plays,
    s.last_day,
    s.silent_days
FROM silent AS s
INNER JOIN users AS u ON s.user_id = u.user_id
WHERE s.silent_days >= 14
ORDER BY s.plays DESC, u.user_id
LIMIT 20
