-- How many plays are heard in each hour (UTC) of a Monday, a Tuesday and so on, as a mean over the days with plays?
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
        h.hour,
        h.weekday,
        CAST(ROUND(CAST(h.plays AS DOUBLE) / d.days, 1) AS DECIMAL(18, 1)) AS mean
    FROM hours AS h
    INNER JOIN days AS d ON h.weekday = d.weekday
)

SELECT
    hour,
    COALESCE(SUM(CASE WHEN weekday = 2 THEN mean END), 0) AS monday,
    COALESCE(SUM(CASE WHEN weekday = 3 THEN mean END), 0) AS tuesday,
    COALESCE(SUM(CASE WHEN weekday = 4 THEN mean END), 0) AS wednesday,
    COALESCE(SUM(CASE WHEN weekday = 5 THEN mean END), 0) AS thursday,
    COALESCE(SUM(CASE WHEN weekday = 6 THEN mean END), 0) AS friday,
    COALESCE(SUM(CASE WHEN weekday = 7 THEN mean END), 0) AS saturday,
    COALESCE(SUM(CASE WHEN weekday = 1 THEN mean END), 0) AS sunday
FROM means
GROUP BY hour
ORDER BY hour
