-- Sends the bodies of a file in turn, one a line: wrk … -s rotate.lua -- FILE CONTENT-TYPE [BEARER]
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

local requests = {}
local turn = 0

function init(arguments)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = arguments[2]
   if arguments[3] then wrk.headers["Authorization"] = "Bearer " .. arguments[3] end
   for line in io.lines(arguments[1]) do
      table.insert(requests, wrk.format(nil, nil, nil, line))
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end
