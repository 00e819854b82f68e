// The console's one style sheet. It stands in each page, and the page's policy names it by its hash: no style from elsewhere
// and no style attribute has any effect.

const light = `--bg:#fbfbfa;--panel:#fff;--line:#e4e3df;--ink:#1c1b19;--soft:#65635d;--accent:#1f5fbf;--accent-soft:#e8f0fb;
--on-accent:#fff;--ok:#17713f;--ok-soft:#e6f4ec;--warn:#855300;--warn-soft:#fbf1dc;--bad:#a9231b;--bad-soft:#fbe9e7;`;

const dark = `--bg:#151513;--panel:#1d1d1a;--line:#33322e;--ink:#ecebe6;--soft:#a8a59d;--accent:#7fb0f5;--accent-soft:#1d2a3d;
--on-accent:#10151d;--ok:#6fcf9b;--ok-soft:#15291f;--warn:#e8b95a;--warn-soft:#2e2512;--bad:#f2938c;--bad-soft:#341a18;`;

export const style = `
:root{${light}--r:8px;--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){:root{${dark}}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
 font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
a{color:var(--accent)}nav a,td a,th a,.card a,.bar a{text-decoration:none}a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
.skip{position:absolute;left:-999px;top:8px;background:var(--panel);padding:6px 12px;z-index:2}.skip:focus{left:12px}
header{display:flex;gap:20px;align-items:center;padding:0 24px;min-height:52px;border-bottom:1px solid var(--line);
 background:var(--panel);position:sticky;top:0;z-index:1}
header strong{font-weight:650;letter-spacing:-.01em}
header form{display:flex;gap:10px;align-items:center;color:var(--soft);white-space:nowrap}
.find input{width:210px}.group{margin:0 0 2px}.cards+.panel{margin-top:12px}td p:last-child{margin:0}.banner dl,details dl{margin:0 0 12px}
.who{max-width:180px;overflow:hidden;text-overflow:ellipsis}
nav{display:flex;gap:2px;overflow-x:auto;flex:1;padding:4px 2px}
nav a{padding:6px 10px;border-radius:6px;color:var(--soft);white-space:nowrap}
nav a:hover{background:var(--bg);text-decoration:none;color:var(--ink)}
nav a[aria-current]{color:var(--ink);background:var(--accent-soft)}
main{max-width:1120px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:22px;line-height:1.25;margin:0 0 4px;font-weight:650;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{scroll-margin-top:110px;font-size:15px;margin:32px 0 10px;font-weight:600}h3{font-size:14px;margin:0 0 4px;font-weight:600}
p{margin:0 0 12px}.sub{color:var(--soft);margin:0 0 20px}.soft{color:var(--soft)}
code,pre,.mono{font-family:var(--mono);font-size:.93em}code{overflow-wrap:anywhere}.wrap{overflow-wrap:break-word;min-width:110px;max-width:420px}
pre{margin:0 0 12px;padding:12px 14px;background:var(--bg);border:1px solid var(--line);border-radius:6px;overflow-x:auto}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:var(--r);overflow-x:auto}
.pad{padding:14px 16px}.pad>:last-child,.banner>:last-child{margin-bottom:0}
table{border-collapse:collapse;width:100%}
th{font-weight:500;color:var(--soft);text-align:left;font-size:12.5px;padding:9px 14px;border-bottom:1px solid var(--line);
 white-space:nowrap}
tbody th{font-size:14px;color:var(--ink);font-weight:400;vertical-align:top}
td{padding:9px 14px;border-bottom:1px solid var(--line);vertical-align:top}
tbody tr:last-child>*{border-bottom:0}td.n,th.n{text-align:right;white-space:nowrap}th[aria-sort] a{color:var(--ink);font-weight:600}
.tag{display:inline-flex;align-items:center;gap:6px;padding:1px 8px;border-radius:99px;font-size:12.5px;white-space:nowrap}
.tag::before{content:"";width:7px;height:7px;border-radius:50%;background:currentColor}
.ok{color:var(--ok);background:var(--ok-soft)}.warn{color:var(--warn);background:var(--warn-soft)}
.bad{color:var(--bad);background:var(--bad-soft)}.off{color:var(--soft);background:var(--bg)}
.banner{padding:12px 16px;border:1px solid;border-left-width:4px;border-radius:var(--r);margin:0 0 20px}
.banner.ok,.banner.bad,.banner.warn{border-color:currentColor}.banner>*{color:var(--ink)}.banner a{color:var(--accent)}
input,select,textarea,button{font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:6px;
 padding:6px 10px;max-width:100%}
input,select,textarea{border-color:var(--soft)}textarea{width:100%;min-height:64px;font-family:var(--mono);font-size:.93em}
button{background:var(--panel);cursor:pointer;white-space:nowrap}button:hover{border-color:var(--soft)}
button.primary{background:var(--accent);border-color:var(--accent);color:var(--on-accent)}button.danger{color:var(--bad)}
.fields{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));margin:0 0 14px}
.field label,legend{display:block;font-weight:500;padding:0;margin:0 0 3px}.field input,.field select{width:100%}
.field small,fieldset small{display:block;color:var(--soft);margin-top:3px}.field .wrong{color:var(--bad)}
[aria-invalid=true]{border-color:var(--bad);outline:1px solid var(--bad)}
fieldset{border:0;margin:0 0 14px;padding:0;min-width:0}form>.field{margin:0 0 14px}.bar input{width:180px}fieldset label{display:inline-flex;gap:6px;align-items:center;margin-right:14px}
.bar{display:flex;gap:10px;flex-wrap:wrap;align-items:center;margin:0 0 12px}.bar .end{margin-left:auto}.bar a[aria-current]{color:var(--ink);font-weight:600}
details{margin:0 0 8px}details.panel{margin-top:12px}summary{cursor:pointer;color:var(--accent);width:max-content;max-width:100%}
details[open]>summary{margin-bottom:10px}
td details{margin:0}.several{list-style:none;margin:0;padding:0}.several li{margin:0 0 8px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px}
.card{background:var(--panel);border:1px solid var(--line);border-radius:var(--r);padding:14px 16px}
.card b{display:block;font-size:24px;font-weight:650;letter-spacing:-.02em;line-height:1.2}.card span{color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px;margin:0 0 12px}
figure{margin:0;display:flex;flex-direction:column}figcaption{flex:1}figcaption b{display:block}.scale{display:flex;justify-content:space-between;font-size:12px;color:var(--soft)}
.plots svg{display:block;width:100%;height:110px}.curve{fill:var(--accent-soft);stroke:var(--accent);vector-effect:non-scaling-stroke}
.grid{stroke:var(--line);vector-effect:non-scaling-stroke}.unknown{fill:var(--line);opacity:.5}
.attention{list-style:none;margin:0;padding:0}
.attention li{padding:10px 14px;border-bottom:1px solid var(--line);display:flex;gap:12px;align-items:baseline;flex-wrap:wrap}
.attention li:last-child{border:0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 20px;margin:0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.pages{display:flex;gap:14px;margin:12px 0 0}
@media (max-width:1600px){header{flex-wrap:wrap;gap:4px 20px;padding:8px 24px}header .find{margin-left:auto}header nav{order:1;flex-basis:100%;margin:0 -10px}}
@media (max-width:640px){header{gap:4px 12px;padding:8px 14px;position:static}header .find{display:none}
 header form{margin-left:auto}main{padding:20px 14px 48px}dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 8px}}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
`;
