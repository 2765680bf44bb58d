// Numbers for people.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const count = (number) => whole.format(number);

export function rate(number) {
  if (number === 0) return "0";
  return number < 10 ? number.toFixed(1) : whole.format(number);
}

export function seconds(number) {
  if (number === null || number === undefined) return "–";
  if (number === 0) return "0 ms";
  if (number < 0.01) return `${(number * 1000).toFixed(1)} ms`;
  if (number < 1) return `${Math.round(number * 1000)} ms`;
  return number < 100 ? `${number.toFixed(number < 10 ? 2 : 1)} s` : age(number);
}

export const percent = (share) => `${(share * 100).toFixed(share > 0.999 || share === 0 ? 0 : 1)} %`;

export function age(total) {
  const days = Math.floor(total / 86400), hours = Math.floor((total % 86400) / 3600), minutes = Math.floor((total % 3600) / 60);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(total % 60)} s` : `${Math.floor(total)} s`;
}

export const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString("en-GB");
