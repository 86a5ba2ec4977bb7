// Package e2e drives the dashboard in a browser, as an operator would: its tests need Chromium (tools/setup.sh installs it). It is a
// module of its own, so that what drives the browser reaches no program that links the server.
package e2e
