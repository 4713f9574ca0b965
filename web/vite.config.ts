import { defineConfig } from "vite";

const api = "http://127.0.0.1:8000";

// What is built is served by api/web under a strict Content-Security-Policy: nothing inline, nothing from elsewhere.
export default defineConfig({
  build: {
    outDir: "../api/web/dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    rollupOptions: { input: ["index.html", "operations.html"] },
    // The editor, which is loaded once a document is opened.
    chunkSizeWarningLimit: 700,
  },
  // `npm run dev` beside `make run`: the page with hot reload, the API behind it. Sign in with `make token`.
  // The operators' page is then at /operations.html.
  server: { proxy: { "/v1": { target: api, ws: true }, "/schema": api } },
});
