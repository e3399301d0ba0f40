-- What all scripts here share. SOCKET and the names of things come by miltertest -D.
function open_connection(address)
	local conn = mt.connect(SOCKET)
	if conn == nil then error("can't connect to " .. SOCKET) end
	if mt.conninfo(conn, "client.test", address or "127.0.0.1") ~= nil then error("conninfo failed") end
	return conn
end

function expect(conn, reply, step)
	if mt.getreply(conn) ~= reply then error(step .. ": reply " .. mt.getreply(conn) .. ", expected " .. reply) end
end

function envelope(conn, sender, ...)
	mt.macro(conn, SMFIC_MAIL, "i", "4Lua")
	if mt.mailfrom(conn, sender) ~= nil then error("mailfrom failed") end
	for _, rcpt in ipairs({...}) do
		if mt.rcptto(conn, rcpt) ~= nil then error("rcptto failed") end
		expect(conn, SMFIR_CONTINUE, "RCPT " .. rcpt)
	end
end

function header(conn)
	mt.header(conn, "From", " a@home.test")
	mt.header(conn, "Subject", " hello")
	mt.header(conn, "Content-Type", " text/plain; charset=utf-8")
	mt.eoh(conn)
end

function finish(conn, text)
	if mt.bodystring(conn, text) ~= nil then error("body failed") end
	if mt.eom(conn) ~= nil then error("eom failed") end
end

function expect_sealed(conn)
	expect(conn, SMFIR_ACCEPT, "end of message")
	if not mt.eom_check(conn, MT_BODYCHANGE) then error("the body was not replaced") end
	if not mt.eom_check(conn, MT_HDRCHANGE, "Content-Type") then error("Content-Type was not changed") end
	if not mt.eom_check(conn, MT_HDRADD, "MIME-Version", " 1.0") then error("no MIME-Version") end
	if not mt.eom_check(conn, MT_HDRADD, "Content-Transfer-Encoding", " base64") then error("no base64") end
end
