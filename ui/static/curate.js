export function mount(e){e.textContent="soon";}
