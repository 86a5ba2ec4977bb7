package dashboard_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/throttlekit/throttlekit-go/server/dashboard"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

func Example() {
	hub, err := monitor.New(monitor.Config{Node: "10.0.0.7:50051", Backend: "memory"})
	if err != nil {
		fmt.Println(err)
		return
	}
	board, err := dashboard.New(dashboard.Config{Source: hub})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", board)
	mux.Handle("/dashboard/", board)

	server := httptest.NewServer(mux)
	defer server.Close()
	server.Config.RegisterOnShutdown(board.Close)

	answer, err := http.Get(server.URL + "/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode, answer.Header.Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}
