-- Which songs of the catalogue are played most, and by how many listeners?
-- Only plays that found their song are counted.
-- bar: plays
SELECT
    s.song_id,
    s.title,
    a.name AS artist,
    COUNT(*) AS plays,
    COUNT(DISTINCT p.user_id) AS listeners
FROM songplays AS p
INNER JOIN songs AS s ON p.song_id = s.song_id
INNER JOIN artists AS a ON s.artist_id = a.artist_id
GROUP BY s.song_id, s.title, a.name
ORDER BY plays DESC, s.song_id
LIMIT 20
