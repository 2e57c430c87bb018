-- On which devices do people listen, and who pays?
-- Told from user_agent by its words. Null: no user_agent.
-- bar: plays
WITH known AS (
    SELECT
        CASE
            WHEN user_agent LIKE '%iPhone%' THEN 'iPhone'
            WHEN user_agent LIKE '%iPad%' THEN 'iPad'
            WHEN user_agent LIKE '%Android%' THEN 'Android'
            WHEN user_agent LIKE '%Windows%' THEN 'Windows'
            WHEN user_agent LIKE '%Macintosh%' THEN 'Mac'
            WHEN user_agent LIKE '%Linux%' THEN 'Linux'
            WHEN user_agent IS NOT NULL THEN 'other'
        END AS device,
        user_id,
        level
    FROM songplays
)

SELECT
    device,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    CAST(ROUND(CAST(COUNT(*) AS DOUBLE) / COUNT(DISTINCT user_id), 1) AS DECIMAL(18, 1)) AS plays_per_listener,
    CAST(ROUND(100 * CAST(COUNT(CASE WHEN level = 'paid' THEN 1 END) AS DOUBLE) / COUNT(*), 1) AS DECIMAL(4, 1))
        AS paid_percent
FROM known
GROUP BY device
ORDER BY plays DESC, device NULLS LAST
