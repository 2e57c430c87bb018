-- How did people listen in one month, November 2018, as paying listeners and as free ones?
-- This is cheap on a lake of many years: songplays has a folder for each year and month, and a filter on both columns
-- lets an engine open the files of one folder alone. A filter on start_time would open them all.
WITH sessions AS (
    SELECT
        level,
        user_id,
        session_id,
        COUNT(*) AS plays
    FROM songplays
    WHERE year = 2018 AND month = 11
    GROUP BY level, user_id, session_id
)

SELECT
    level,
    SUM(plays) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(*) AS sessions,
    CAST(ROUND(CAST(SUM(plays) AS DOUBLE) / COUNT(*), 1) AS DECIMAL(18, 1)) AS plays_per_session
FROM sessions
GROUP BY level
ORDER BY level NULLS LAST
