-- How do women and men listen, as paying listeners and as free ones?
-- level is the level at the play, so one listener may count in two rows.
-- bar: plays_per_listener
SELECT
    u.gender,
    p.level,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.user_id) AS listeners,
    CAST(ROUND(CAST(COUNT(*) AS DOUBLE) / COUNT(DISTINCT p.user_id), 1) AS DECIMAL(18, 1)) AS plays_per_listener
FROM songplays AS p
INNER JOIN users AS u ON p.user_id = u.user_id
GROUP BY u.gender, p.level
ORDER BY u.gender NULLS LAST, p.level NULLS LAST
