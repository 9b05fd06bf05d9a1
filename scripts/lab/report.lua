-- wrk's result as one line of JSON behind a mark: counts, and latency at each thousandth in microseconds, so that runs
-- beside each other can be merged.
function done(summary, latency, requests)
    local points = {}
    for i = 1, 1000 do
        points[i] = string.format("%d", latency:percentile(i / 10))
    end
    local e = summary.errors
    io.write(string.format(
        '\n@result {"requests":%d,"microseconds":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d,"latency":[%s]}\n',
        summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status, table.concat(points, ",")
    ))
end
