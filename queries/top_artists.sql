-- Which artists of the catalogue are played most, with how many of their songs, and where are they from?
-- Only plays that found their song are counted.
-- bar: plays
SELECT
    a.artist_id,
    a.name AS artist,
    a.location,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.song_id) AS songs,
    COUNT(DISTINCT p.user_id) AS listeners
FROM songplays AS p
INNER JOIN artists AS a ON p.artist_id = a.artist_id
GROUP BY a.artist_id, a.name, a.location
ORDER BY plays DESC, a.artist_id
LIMIT 20
