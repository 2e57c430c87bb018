-- How many of each day's listeners play for the first time, and how many have come back?
-- bar: new_listeners
WITH heard AS (
    SELECT
        p.user_id,
        t.year,
        t.month,
        t.day,
        ROW_NUMBER() OVER (PARTITION BY p.user_id ORDER BY t.year, t.month, t.day) AS visit
    FROM songplays AS p
    INNER JOIN time AS t ON p.start_time = t.start_time
    GROUP BY p.user_id, t.year, t.month, t.day
)

SELECT
    year,
    month,
    day,
    COUNT(CASE WHEN visit = 1 THEN 1 END) AS new_listeners,
    COUNT(CASE WHEN visit > 1 THEN 1 END) AS back_again
FROM heard
GROUP BY year, month, day
ORDER BY year, month, day
