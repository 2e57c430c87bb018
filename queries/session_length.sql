-- How long do sessions last, from the start of the first play to the start of the last one?
WITH sessions AS (
    SELECT
        user_id,
        session_id,
        COUNT(*) AS plays,
        MAX(start_time) - MIN(start_time) AS lasted
    FROM songplays
    GROUP BY user_id, session_id
),

in_minutes AS (
    SELECT
        plays,
        EXTRACT(DAY FROM lasted) * 1440 + EXTRACT(HOUR FROM lasted) * 60 + EXTRACT(MINUTE FROM lasted) AS minutes
    FROM sessions
),

classed AS (
    SELECT
        plays,
        minutes,
        CASE
            WHEN minutes < 10 THEN 0
            WHEN minutes < 30 THEN 10
            WHEN minutes < 60 THEN 30
            WHEN minutes < 120 THEN 60
            WHEN minutes < 240 THEN 120
            ELSE 240
        END AS from_minutes
    FROM in_minutes
)

SELECT
    from_minutes,
    COUNT(*) AS sessions,
    SUM(plays) AS plays,
    MAX(minutes) AS longest
FROM classed
GROUP BY from_minutes
ORDER BY from_minutes
