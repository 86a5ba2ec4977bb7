// Package dashboard shows in a browser what a monitor hub knows, live: one page of hand-written HTML, CSS and JavaScript that is
// part of the program and asks for nothing from elsewhere.
//
//	board, err := dashboard.New(dashboard.Config{Source: hub})
//	...
//	mux.Handle("GET /{$}", board)
//	mux.Handle("/dashboard/", board)
//	httpServer.RegisterOnShutdown(board.Close)
//
// # Who may look
//
// Without a secret, only callers on this machine, under an address, the name localhost or the one in the configuration: a page of
// another origin cannot reach the dashboard by a name of its own that leads here (DNS rebinding), and a reverse proxy cannot pass
// strangers off as local. With a secret, everybody logs in by a form, callers on this machine included, five tries a minute for
// each address. The secret travels in the body of that one request; from then on a cookie holds a random token that scripts
// cannot read, valid for twelve hours or until the process ends. An empty secret lets nobody in.
//
// # What it serves
//
//	GET  /                    the page, or the form
//	GET  /dashboard/events    server-sent events: "hello", "snapshot" every interval, "denials" as they come
//	GET  /dashboard/snapshot  the document of the server specification, §3.3
//	POST /dashboard/login     secret=...
//	POST /dashboard/logout
//
// Denials in the stream are a sample: the newest 20 of each fifth of a second. Snapshots are shared among all who look, so that
// their cost does not grow with the audience.
//
// All types are safe for concurrent use.
package dashboard
