-- On which days did listeners upgrade to paid or downgrade to free, as their plays show it?
-- Only plays are in the lake, so a change shows at the next play: 20 of the 24 upgrades in the sample's log.
-- bar: upgrades
WITH steps AS (
    SELECT
        p.start_time,
        p.level,
        LAG(p.level) OVER (
            PARTITION BY p.user_id
            ORDER BY p.start_time, p.session_id, p.songplay_id
        ) AS level_before
    FROM songplays AS p
    WHERE p.level IN ('free', 'paid')
)

SELECT
    t.year,
    t.month,
    t.day,
    COUNT(CASE WHEN s.level = 'paid' THEN 1 END) AS upgrades,
    COUNT(CASE WHEN s.level = 'free' THEN 1 END) AS downgrades
FROM steps AS s
INNER JOIN time AS t ON s.start_time = t.start_time
WHERE s.level <> s.level_before
GROUP BY t.year, t.month, t.day
ORDER BY t.year, t.month, t.day
