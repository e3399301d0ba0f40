-- Mail that isn't outbound, and mail that nobody seals: accepted at the end of the header.
dofile(COMMON)
for _, case in ipairs({
	{ "127.0.0.1", "<x@elsewhere.test>", "<alice@partner.test>" },
	{ "192.0.2.1", "<a@home.test>", "<alice@partner.test>" },
	{ "127.0.0.1", "<a@home.test>", "<b@home.test>" },
	{ "127.0.0.1", "<a@home.test>", "<x@never.test>" },
	{ "127.0.0.1", "<>", "<alice@partner.test>" },
}) do
	local conn = open_connection(case[1])
	envelope(conn, case[2], case[3])
	header(conn)
	expect(conn, SMFIR_ACCEPT, "end of header of " .. case[2] .. " to " .. case[3])
	mt.disconnect(conn)
end
