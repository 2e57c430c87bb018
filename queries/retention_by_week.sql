-- Of the people who first listened in a week, what percentage listens again one, two, three and four weeks later?
-- Weeks begin on Monday. Null: that week is after the last one of the lake. The last one may be cut short.
-- bar: week_1_percent
WITH heard AS (
    SELECT DISTINCT
        user_id,
        DATE_TRUNC('week', start_time) AS week
    FROM songplays
),

known AS (
    SELECT
        user_id,
        week,
        MIN(week) OVER (PARTITION BY user_id) AS first_week,
        (SELECT MAX(week) FROM heard) AS last_week
    FROM heard
),

visits AS (
    SELECT
        first_week,
        user_id,
        EXTRACT(DAY FROM week - first_week) AS days_later,
        EXTRACT(DAY FROM last_week - first_week) AS days_known
    FROM known
),

counted AS (
    SELECT
        first_week,
        days_known,
        CAST(COUNT(DISTINCT user_id) AS DOUBLE) AS listeners,
        COUNT(CASE WHEN days_later = 7 THEN 1 END) AS after_1,
        COUNT(CASE WHEN days_later = 14 THEN 1 END) AS after_2,
        COUNT(CASE WHEN days_later = 21 THEN 1 END) AS after_3,
        COUNT(CASE WHEN days_later = 28 THEN 1 END) AS after_4
    FROM visits
    GROUP BY first_week, days_known
)

SELECT
    CAST(first_week AS DATE) AS first_week,
    CAST(listeners AS BIGINT) AS listeners,
    CASE WHEN days_known >= 7 THEN CAST(ROUND(100 * after_1 / listeners, 1) AS DECIMAL(4, 1)) END
        AS week_1_percent,
    CASE WHEN days_known >= 14 THEN CAST(ROUND(100 * after_2 / listeners, 1) AS DECIMAL(4, 1)) END
        AS week_2_percent,
    CASE WHEN days_known >= 21 THEN CAST(ROUND(100 * after_3 / listeners, 1) AS DECIMAL(4, 1)) END
        AS week_3_percent,
    CASE WHEN days_known >= 28 THEN CAST(ROUND(100 * after_4 / listeners, 1) AS DECIMAL(4, 1)) END
        AS week_4_percent
FROM counted
ORDER BY first_week
