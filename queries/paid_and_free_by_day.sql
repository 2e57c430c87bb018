-- How do paid and free listening compare from day to day?
-- bar: paid_percent
WITH days AS (
    SELECT
        t.year,
        t.month,
        t.day,
        COUNT(CASE WHEN p.level = 'free' THEN 1 END) AS free_plays,
        COUNT(CASE WHEN p.level = 'paid' THEN 1 END) AS paid_plays,
        COUNT(DISTINCT CASE WHEN p.level = 'free' THEN p.user_id END) AS free_listeners,
        COUNT(DISTINCT CASE WHEN p.level = 'paid' THEN p.user_id END) AS paid_listeners
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY t.year, t.month, t.day
)

SELECT
    year,
    month,
    day,
    free_plays,
    paid_plays,
    free_listeners,
    paid_listeners,
    CAST(ROUND(100 * CAST(paid_plays AS DOUBLE) / NULLIF(free_plays + paid_plays, 0), 1) AS DECIMAL(4, 1))
        AS paid_percent
FROM days
ORDER BY year, month, day
