-- Where are the plays heard?
-- bar: plays
SELECT
    location,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(song_id) AS plays_of_known_songs
FROM songplays
GROUP BY location
ORDER BY plays DESC, location NULLS LAST
LIMIT 15
