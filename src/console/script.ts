// The console's one script. No page needs it: it adds buttons that copy, and brings a page's numbers up to date while the
// page is looked at. Written for browsers, so it is a text here.

export const script = `
document.addEventListener('click', async ({ target }) => {
  const from = target.closest('button[data-copy]');
  if (!from) return;
  await navigator.clipboard.writeText(document.getElementById(from.dataset.copy).textContent);
  from.textContent = 'Copied';
});
const showCopying = () => {
  if (navigator.clipboard) for (const button of document.querySelectorAll('button[data-copy]')) button.hidden = false;
};
showCopying();
let typed = false;
document.addEventListener('input', () => (typed = true));
const isBusy = () =>
  typed || document.hidden || document.querySelector('main details[open]') || document.activeElement.closest('main form') ||
  String(getSelection()) !== '';
setInterval(async () => {
  const main = document.querySelector('main[data-live]');
  if (!main || isBusy()) return;
  const answer = await fetch(location.href).catch(() => null);
  if (answer?.status === 401) return location.reload();
  if (!answer?.ok || isBusy()) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const at = document.activeElement.getAttribute('href');
  main.replaceChildren(...page.querySelector('main').childNodes);
  showCopying();
  if (at !== null && document.activeElement === document.body)
    [...main.querySelectorAll('a')].find((link) => link.getAttribute('href') === at)?.focus({ preventScroll: true });
}, 15000);
`;
