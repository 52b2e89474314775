-- The exact numbers of a run of wrk, for load.py. Nothing here runs per request.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nresult {"requests": %d, "bytes": %d, "microseconds": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
      summary.requests, summary.bytes, summary.duration,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
