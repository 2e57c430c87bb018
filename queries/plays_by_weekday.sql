-- On which days of the week (1 is Sunday) do people listen, in all and on a day with any plays?
-- bar: plays_per_day
WITH days AS (
    SELECT
        t.weekday,
        t.year,
        t.month,
        t.day,
        COUNT(*) AS plays
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY t.weekday, t.year, t.month, t.day
)

SELECT
    weekday,
    COUNT(*) AS days,
    SUM(plays) AS plays,
    CAST(ROUND(CAST(SUM(plays) AS DOUBLE) / COUNT(*), 1) AS DECIMAL(18, 1)) AS plays_per_day
FROM days
GROUP BY weekday
ORDER BY weekday
