-- How many people listen each week, how many of them as paying listeners, and what share of the plays is paid?
-- Weeks are those of ISO 8601 and begin on Monday. The first and the last may be cut short: see their days.
-- bar: paid_percent
WITH weeks AS (
    SELECT
        CAST(DATE_TRUNC('week', start_time) AS DATE) AS week,
        COUNT(DISTINCT CAST(start_time AS DATE)) AS days,
        COUNT(DISTINCT user_id) AS listeners,
        COUNT(DISTINCT CASE WHEN level = 'paid' THEN user_id END) AS paid_listeners,
        COUNT(*) AS plays,
        COUNT(CASE WHEN level = 'paid' THEN 1 END) AS paid_plays
    FROM songplays
    GROUP BY CAST(DATE_TRUNC('week', start_time) AS DATE)
)

SELECT
    week,
    days,
    listeners,
    paid_listeners,
    plays,
    CAST(ROUND(100 * CAST(paid_plays AS DOUBLE) / plays, 1) AS DECIMAL(4, 1)) AS paid_percent
FROM weeks
ORDER BY week
