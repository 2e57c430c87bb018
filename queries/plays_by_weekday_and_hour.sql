-- How many plays are heard in each hour (UTC) of a Monday, a Tuesday and so on, as a mean over the days with plays?
-- A weekday that no play falls on is null.
WITH days AS (
    SELECT
        weekday,
        COUNT(*) AS days
    FROM (SELECT DISTINCT weekday, year, month, day FROM time) AS dates
    GROUP BY weekday
),

hours AS (
    SELECT
        t.weekday,
        t.hour,
        COUNT(*) AS plays
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY t.weekday, t.hour
),

means AS (
    SELECT
        all_hours.hour,
        d.weekday,
        CAST(ROUND(CAST(COALESCE(h.plays, 0) AS DOUBLE) / d.days, 1) AS DECIMAL(18, 1)) AS mean
    FROM (SELECT DISTINCT hour FROM hours) AS all_hours
    CROSS JOIN days AS d
    LEFT JOIN hours AS h ON all_hours.hour = h.hour AND d.weekday = h.weekday
)

SELECT
    hour,
    SUM(CASE WHEN weekday = 2 THEN mean END) AS monday,
    SUM(CASE WHEN weekday = 3 THEN mean END) AS tuesday,
    SUM(CASE WHEN weekday = 4 THEN mean END) AS wednesday,
    SUM(CASE WHEN weekday = 5 THEN mean END) AS thursday,
    SUM(CASE WHEN weekday = 6 THEN mean END) AS friday,
    SUM(CASE WHEN weekday = 7 THEN mean END) AS saturday,
    SUM(CASE WHEN weekday = 1 THEN mean END) AS sunday
FROM means
GROUP BY hour
ORDER BY hour
