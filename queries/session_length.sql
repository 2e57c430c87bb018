-- How long do sessions last, in minutes from the start of the first play to the start of the last one?
-- A session with one play has no length, so it stands apart.
-- bar: sessions
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
        CASE
            WHEN plays > 1
                THEN EXTRACT(DAY FROM lasted) * 1440 + EXTRACT(HOUR FROM lasted) * 60 + EXTRACT(MINUTE FROM lasted)
        END AS minutes
    FROM sessions
),

classed AS (
    SELECT
        plays,
        minutes,
        CASE
            WHEN minutes IS NULL THEN 'one play'
            WHEN minutes < 10 THEN 'under 10'
            WHEN minutes < 30 THEN '10 to 29'
            WHEN minutes < 60 THEN '30 to 59'
            WHEN minutes < 120 THEN '60 to 119'
            WHEN minutes < 240 THEN '120 to 239'
            ELSE '240 or more'
        END AS length_in_minutes
    FROM in_minutes
)

SELECT
    length_in_minutes,
    COUNT(*) AS sessions,
    SUM(plays) AS plays,
    MAX(minutes) AS longest_minutes
FROM classed
GROUP BY length_in_minutes
ORDER BY longest_minutes NULLS FIRST
