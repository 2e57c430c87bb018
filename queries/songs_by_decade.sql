-- From which decades are the songs of the catalogue (null: year unknown), and how often are they played?
-- Plays are those that found their song. The year of a song is 0 in songs where it is unknown.
-- bar: plays
WITH counted AS (
    SELECT
        song_id,
        COUNT(*) AS plays
    FROM songplays
    WHERE song_id IS NOT NULL
    GROUP BY song_id
),

dated AS (
    SELECT
        NULLIF(s.year - s.year % 10, 0) AS decade,
        s.duration,
        COALESCE(c.plays, 0) AS plays
    FROM songs AS s
    LEFT JOIN counted AS c ON s.song_id = c.song_id
)

SELECT
    decade,
    COUNT(*) AS songs,
    COUNT(CASE WHEN plays = 0 THEN 1 END) AS never_played,
    SUM(plays) AS plays,
    CAST(ROUND(MAX(duration), 0) AS BIGINT) AS longest_seconds
FROM dated
GROUP BY decade
ORDER BY decade NULLS LAST
